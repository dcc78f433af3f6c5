"""The lab of the alerts: each rule fires by a real fault, and none in a healthy hour."""
