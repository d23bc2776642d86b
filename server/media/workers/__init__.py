"""The decode workers: processes in a box, with little memory and time, and how the server talks to them."""
