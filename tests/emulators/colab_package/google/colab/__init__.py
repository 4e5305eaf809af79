"""As much of Colab's own package as a kernel that nobody looks at can use."""
