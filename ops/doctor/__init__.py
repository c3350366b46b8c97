"""`doctor`: looks for the mistakes that otherwise cost a day. One module for each theme; none changes anything."""
