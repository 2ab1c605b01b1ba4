"""(1) Local rows -> embeddings. No network here."""
