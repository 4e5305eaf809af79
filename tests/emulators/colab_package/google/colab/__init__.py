"""As much of Colab's own package as a kernel without a browser can use."""
