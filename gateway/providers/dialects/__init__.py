"""What clients speak: reading their requests, writing answers, streams and errors their way."""
