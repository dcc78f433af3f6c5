"""What a plan of an instance says, whichever version of Corral staged it."""
