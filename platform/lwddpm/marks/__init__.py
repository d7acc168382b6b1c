"""What every synthetic image says of itself: that it is one, and how it was drawn; as PNG, DICOM and NIfTI."""
