// Package awskms has keysets encrypted by a key of AWS KMS. It is a package of its own so that programs without it do not
// contain AWS's client.
package awskms

import (
	"context"
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go-awskms/v3/integration/awskms"
	"github.com/tink-crypto/tink-go/v2/tink"

	"bellhop/encryption"
)

// Service is AWS KMS with AWS's own configuration: credentials and endpoint as for every client of AWS, the region from the
// key's ARN.
type Service struct{}

var _ encryption.KMS = Service{}

// Supported says whether a URI names a key of AWS KMS.
func (Service) Supported(uri string) bool { return strings.HasPrefix(uri, "aws-kms://") }

// GetAEAD answers a key, which has not been used yet.
func (Service) GetAEAD(uri string) (tink.AEAD, error) {
	client, err := awskms.NewClientWithOptions(context.Background(), uri)
	if err != nil {
		return nil, fmt.Errorf("use key %s: %w", uri, err)
	}
	return client.GetAEAD(uri)
}
