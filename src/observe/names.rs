//! Every metric's name and help, in one list.
