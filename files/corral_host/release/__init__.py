"""Engine releases on this host: built, proved, packed, installed, removed."""
