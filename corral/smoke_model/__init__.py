"""The tiny model that new engine releases are tried on."""
