"""From a pairs file or a folder of pictures to samples: tables, captions, pictures, and the order that they come in."""
