"""Read an instance's plan, whichever version of Corral staged it."""
