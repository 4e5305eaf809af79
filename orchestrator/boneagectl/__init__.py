"""boneagectl: train bone age networks on Azure ML, Kaggle, Colab or here, within a student's budget."""
