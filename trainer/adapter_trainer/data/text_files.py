"""Text as editors and spreadsheets write it."""

import codecs

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decoded(content: bytes) -> str:
    """UTF-8 with or without its mark, or UTF-16 with it; line ends of every system as one.

    Raises:
        UnicodeDecodeError: another encoding.
    """
    text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")
