package ecs

import (
	"testing"

	"bellhop/internal/boundtest"
)

// FuzzProviderConfig reads a provider_config, and one that repeats something as often as fits.
func FuzzProviderConfig(f *testing.F) {
	f.Add(`{"subnets":["subnet-0a"],"security_groups":["sg-0a"],"assign_public_ip":true}`, ``, ``, `nginx`)
	f.Add(`{"subnets":[`, `"subnet-0a",`, `""]}`, `arn:aws:secretsmanager:x`)
	f.Add(`{"capacity_providers":[`, `{"name":"FARGATE","weight":1},`, `{}]}`, `n`)
	f.Add(`{"target_groups":[`, `{"arn":"arn:aws:elasticloadbalancing:x","port":"p"},`, `{}]}`, `n`)
	f.Fuzz(boundtest.ProviderConfig(Check))
}
