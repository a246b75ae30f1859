//! The HTTP facade of Keywright: it authorises, validates, enqueues and answers.
