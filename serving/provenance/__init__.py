"""What an image file says of itself: pure, bounded, no network; no pixel is decoded and no prompt leaves here."""
