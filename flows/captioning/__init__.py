"""Captioning many images as a job in a folder: images, shards, merged files."""
