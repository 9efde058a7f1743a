package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/system/redfish/access"
)

const accountsPath = "/redfish/v1/AccountService/Accounts"

// accountStatus is an account as `racklet account list` prints it.
type accountStatus struct {
	Name                   string `json:"name"`
	Role                   string `json:"role"`
	Enabled                bool   `json:"enabled"`
	Locked                 bool   `json:"locked"`
	PasswordChangeRequired bool   `json:"passwordChangeRequired"`
}

func newAccount(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:     "account",
		GroupID: "operate",
		Short:   "Say who may log in to the management API over the network",
	}
	c.AddCommand(newAccountList(env), newAccountAdd(env), newAccountReset(env), newAccountUnlock(env), newAccountDelete(env))
	return c
}

// exactAccount wants the name of one account.
func exactAccount(c *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return &usageError{fmt.Errorf("%s: want the name of one account, have %d arguments", c.CommandPath(), len(args))}
	}
	return nil
}

func newAccountList(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the accounts",
		Example: "  racklet account list",
		Args:    cobra.NoArgs,
		RunE: env.withClient(func(ctx context.Context, client *redfishClient, _ []string) error {
			accounts, err := readAccounts(ctx, client)
			if err != nil {
				return err
			}
			return env.print(accounts, func(w io.Writer) error {
				for _, a := range accounts {
					var notes []string
					for _, n := range []struct {
						on   bool
						text string
					}{{!a.Enabled, "disabled"}, {a.Locked, "locked"}, {a.PasswordChangeRequired, "password to be changed"}} {
						if n.on {
							notes = append(notes, n.text)
						}
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", a.Name, a.Role, strings.Join(notes, ", "))
				}
				return nil
			})
		}),
	}
}

func readAccounts(ctx context.Context, client *redfishClient) ([]accountStatus, error) {
	var all struct {
		Members []struct {
			UserName, RoleId                        string
			Enabled, Locked, PasswordChangeRequired bool
		}
	}
	if err := client.get(ctx, accountsPath+"?$expand=.", &all); err != nil {
		return nil, err
	}
	accounts := []accountStatus{}
	for _, a := range all.Members {
		accounts = append(accounts, accountStatus{a.UserName, a.RoleId, a.Enabled, a.Locked, a.PasswordChangeRequired})
	}
	return accounts, nil
}

func newAccountAdd(env *environment) *cobra.Command {
	role := string(access.ReadOnly)
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Add an account and print its first password",
		Long: `Add makes an account with a password of 128 random bits, printed once. At the
first login nothing is allowed with it but to choose another one.`,
		Example: "  racklet account add ada --role Administrator",
		Args:    exactAccount,
		RunE: func(c *cobra.Command, args []string) error {
			secret := access.Secret()
			return env.withSecret(c.Context(), secret, args[0], func(ctx context.Context, client *redfishClient) error {
				return client.post(ctx, accountsPath, map[string]any{"UserName": args[0], "Password": secret, "RoleId": role, "PasswordChangeRequired": true})
			})
		},
	}
	c.Flags().StringVar(&role, "role", role, "`role` of the account: Administrator, Operator or ReadOnly")
	c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"Administrator", "Operator", "ReadOnly"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func newAccountReset(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "reset NAME",
		Short:   "Give an account a new first password and print it",
		Long:    "Reset replaces a forgotten password as \"racklet account add\" makes the first, unlocks the account and ends its sessions.",
		Example: "  racklet account reset ada",
		Args:    exactAccount,
		RunE: func(c *cobra.Command, args []string) error {
			secret := access.Secret()
			return env.withSecret(c.Context(), secret, args[0], func(ctx context.Context, client *redfishClient) error {
				return client.patch(ctx, accountPath(args[0]), map[string]any{"Password": secret, "PasswordChangeRequired": true})
			})
		},
	}
}

// withSecret prints a password after it was set.
func (env *environment) withSecret(ctx context.Context, secret, name string, set func(context.Context, *redfishClient) error) error {
	client, err := env.client()
	if err != nil {
		return err
	}
	if err := set(ctx, client); err != nil {
		return err
	}
	return env.print(map[string]string{"name": name, "password": secret}, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, secret)
		return err
	})
}

func newAccountUnlock(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "unlock NAME",
		Short:   "Unlock an account that failed logins have locked",
		Example: "  racklet account unlock ada",
		Args:    exactAccount,
		RunE: env.withClient(func(ctx context.Context, client *redfishClient, args []string) error {
			return client.patch(ctx, accountPath(args[0]), map[string]any{"Locked": false})
		}),
	}
}

func newAccountDelete(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete an account and end its sessions",
		Example: "  racklet account delete ada",
		Args:    exactAccount,
		RunE: env.withClient(func(ctx context.Context, client *redfishClient, args []string) error {
			return client.do(ctx, http.MethodDelete, accountPath(args[0]), nil, nil)
		}),
	}
}

func accountPath(name string) string { return accountsPath + "/" + url.PathEscape(name) }
