"""The embedded reasoner (CRM): a small Qwen2.5-VL trained from nothing."""
