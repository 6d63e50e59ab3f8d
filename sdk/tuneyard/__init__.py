"""What training code imports: parameters() and report(). Standard library only."""
