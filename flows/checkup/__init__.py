"""The checkup of a model: is it understood, do the methods hold on it, what do they cost?"""
