"""Three small systems with a stated capacity, to stand behind the gateway: support, billing, onboarding."""
