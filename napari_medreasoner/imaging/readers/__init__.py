"""Files in: by kind, each checked before it is decoded."""
