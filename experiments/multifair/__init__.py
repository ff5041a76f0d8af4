"""MultiFair on multimodal patients."""
