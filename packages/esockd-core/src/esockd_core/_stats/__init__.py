"""What a listener counts and logs."""
