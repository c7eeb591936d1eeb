"""What ``tickertape check`` looks at, a module for each subject; checks return findings and change nothing."""
