"""The hub and git servers, asked about repositories; each answer is checked here."""
