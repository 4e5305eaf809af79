"""What a finished run becomes elsewhere: files for other runtimes, entries in other tools, ages for new images.

A folder of its own, because a bundle takes the modules beside it only: none of this is needed where a model is trained.
"""
