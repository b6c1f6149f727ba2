"""Reading from object stores by obstore. (The room of stores brings it.)"""
