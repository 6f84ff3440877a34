"""What a run says of itself: progress, history, trackers, and the page report.html."""
