// Package awsclient is what bellhop's clients of AWS have in common.
package awsclient

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
)

// Load reads AWS's configuration from where AWS's own tools find it. An empty region is that of the environment or of the
// configuration files. No call lasts longer than timeout; 0 leaves that to each call's context.
func Load(region string, timeout time.Duration) (aws.Config, error) {
	options := []func(*config.LoadOptions) error{
		// The one retrier is Temporal.
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(timeout)),
	}
	if region != "" {
		options = append(options, config.WithRegion(region))
	}
	loaded, err := config.LoadDefaultConfig(context.Background(), options...)
	loaded.HTTPClient = client{loaded.HTTPClient}
	return loaded, err
}

// client hides from net/http that the SDK's bodies can write themselves. The SDK closes a request's body as soon as the
// answer begins, and a closed one's WriteTo returns io.EOF where it should return nothing. Where net/http still makes sure
// that the body has no more than it said, as it may with bodies larger than its buffer, it takes that for a broken request
// and closes the connection, and what was left of the answer is lost (smithy-go v1.28.9, transport/http/internal/io).
type client struct{ aws.HTTPClient }

func (c client) Do(request *http.Request) (*http.Response, error) {
	if request.Body != nil && request.Body != http.NoBody {
		request.Body = struct{ io.ReadCloser }{request.Body}
	}
	return c.HTTPClient.Do(request)
}
