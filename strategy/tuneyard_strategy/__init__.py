"""Search spaces and strategies (numpy and scipy only), and the HTTP service that serves them."""
