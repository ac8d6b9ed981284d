package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

const (
	outputText = "text"
	outputJSON = "json"
)

func addOutput(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", outputText, "`format`: text or json")
	choices(cmd, "output", outputText, outputJSON)
}

func checkOutput(cmd *cobra.Command, output string) error {
	if output != outputText && output != outputJSON {
		return usage(cmd, fmt.Errorf("--output %q is neither text nor json", output))
	}
	return nil
}

func writeJSON(w io.Writer, value any, indent bool) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	if indent {
		encoder.SetIndent("", "  ")
	}
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
