"""One method of weight compression a file."""
