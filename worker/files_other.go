//go:build !unix

package main

// exposed finds nothing where files have no modes.
func exposed(string, string) (problem string, refused bool) { return "", false }
