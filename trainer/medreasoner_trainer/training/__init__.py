"""Training a CRM with TRL. Imports nothing heavy; its modules import torch where they need it."""
