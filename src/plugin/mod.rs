//! External stores of metrics: one trait to send to them, one to ask them, and a file for each.
