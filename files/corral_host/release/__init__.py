"""Engine releases on this host: build, prove, pack, install and remove them."""
