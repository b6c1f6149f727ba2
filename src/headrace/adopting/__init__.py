"""Shards of other tools become a dataset where they lie: files, pass, classes. (`headrace.adopt` is the function.)"""
