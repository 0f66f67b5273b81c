"""People of hours of video in a LanceDB store, and the search among them."""
