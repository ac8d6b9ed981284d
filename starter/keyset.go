package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"bellhop/encryption"
	"bellhop/encryption/awskms"
)

func (a *app) keysets() *cobra.Command {
	command := &cobra.Command{
		Use:   "keyset",
		Short: "Make and rotate the keyset by which payloads are encrypted",
		Long: `Make and rotate the keyset by which the worker encrypts what it writes to Temporal (its section "encryption").

A keyset is a file that only its owner can read. With --keyset-kms its keys are encrypted by a key of AWS KMS; it is then
needed with every command and in the worker's configuration.

To rotate, add a key, bring the file to every worker and caller that has the keyset, and only then promote the key:
from then on it encrypts, and the earlier keys still decrypt. No restart is needed. Keep earlier keys as long as Temporal
retains what they encrypted.`,
		Example: `bellhop keyset create keyset.json
bellhop keyset add keyset.json
bellhop keyset promote keyset.json
bellhop keyset list keyset.json`,
		GroupID: groupKeys,
		Args:    none,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command.AddCommand(
		a.keysetCommand("create FILE", "Make a keyset of one key", 1, func(config encryption.Config, _ []uint32) error {
			key, err := encryption.Create(config, awskms.Service{})
			if err == nil {
				fmt.Fprintf(a.stdout, "%s has one key, %d\n", config.KeysetFile, key.ID)
			}
			return err
		}),
		a.keysetCommand("add FILE", "Add a key, which decrypts and does not encrypt yet", 1, func(config encryption.Config, _ []uint32) error {
			key, err := encryption.Add(config, awskms.Service{})
			if err == nil {
				fmt.Fprintf(a.stdout, "added key %d; once every worker and caller has the file: bellhop keyset promote %s %d\n",
					key.ID, config.KeysetFile, key.ID)
			}
			return err
		}),
		a.keysetCommand("promote FILE [KEY]", "Have a key encrypt from now on (default: the newest)", 2, func(config encryption.Config, keys []uint32) error {
			if len(keys) == 0 {
				listed, err := encryption.List(config, awskms.Service{})
				if err != nil {
					return err
				}
				keys = []uint32{listed[len(listed)-1].ID}
			}
			err := encryption.Promote(config, keys[0], awskms.Service{})
			if err == nil {
				fmt.Fprintf(a.stdout, "key %d encrypts from now on\n", keys[0])
			}
			return err
		}),
		a.keysetCommand("remove FILE KEY", "Remove a key for good: what it encrypted cannot be read any more", 2, func(config encryption.Config, keys []uint32) error {
			if len(keys) == 0 {
				return fmt.Errorf("say which key to remove; see: bellhop keyset list %s", config.KeysetFile)
			}
			err := encryption.Remove(config, keys[0], awskms.Service{})
			if err == nil {
				fmt.Fprintf(a.stdout, "removed key %d\n", keys[0])
			}
			return err
		}),
		a.keysetCommand("list FILE", "List the keys, the oldest first", 1, func(config encryption.Config, _ []uint32) error {
			keys, err := encryption.List(config, awskms.Service{})
			for _, key := range keys {
				use := "decrypts"
				if key.Primary {
					use = "encrypts and decrypts"
				}
				fmt.Fprintf(a.stdout, "%-10d  %s  %s\n", key.ID, key.Type, use)
			}
			return err
		}),
	)
	return command
}

// keysetCommand is a command on a file, and on a key of it where it takes more arguments than one.
func (a *app) keysetCommand(use, short string, most int, f func(encryption.Config, []uint32) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > most {
				return fmt.Errorf("it is used as: bellhop keyset %s", cmd.Use)
			}
			return nil
		},
		RunE: a.act(func(cmd *cobra.Command, args []string) error {
			var keys []uint32
			if len(args) == 2 {
				id, err := strconv.ParseUint(args[1], 10, 32)
				if err != nil {
					return usage(cmd, fmt.Errorf("%q is no key's id, which is a number", args[1]))
				}
				keys = append(keys, uint32(id))
			}
			config := a.keysetConfig()
			config.KeysetFile = args[0]
			if err := f(config, keys); err != nil {
				return &problem{exitUsage, err, nil}
			}
			return nil
		}),
	}
}
