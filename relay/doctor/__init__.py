"""What ``tickertape check`` looks at, a module for a subject; checks return findings and change nothing."""
