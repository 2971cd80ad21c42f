"""The JSON of the admin API as types: what does not fit them is refused before anything is done."""
