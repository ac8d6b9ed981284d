// Command leaky is a container that prints its environment and ends with 1, as one does that was written in a hurry.
package main

import (
	"fmt"
	"os"
)

func main() {
	for _, variable := range os.Environ() {
		fmt.Println("cannot start with", variable)
	}
	os.Exit(1)
}
