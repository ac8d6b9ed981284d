// Package awsclient is what bellhop's clients of AWS have in common.
package awsclient

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Load reads AWS's configuration from where AWS's own tools find it. An empty region is that of the environment or of the
// configuration files. No call lasts longer than timeout; 0 leaves that to each call's context.
func Load(region string, timeout time.Duration) (aws.Config, error) {
	options := []func(*config.LoadOptions) error{
		// The one retrier is Temporal.
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(timeout)),
		config.WithAPIOptions([]func(*middleware.Stack) error{readOnly}),
	}
	if region != "" {
		options = append(options, config.WithRegion(region))
	}
	return config.LoadDefaultConfig(context.Background(), options...)
}

// readOnly hides from net/http that the SDK's bodies can write themselves. The SDK closes a request's body as soon as the
// answer begins, and a closed one's WriteTo returns io.EOF where it should return nothing. Where net/http still makes sure
// that the body has no more than it said, as it may with bodies larger than its buffer, it takes that for a broken request
// and closes the connection, and what was left of the answer is lost (smithy-go v1.28.9, transport/http/internal/io).
func readOnly(stack *middleware.Stack) error {
	return stack.Build.Add(middleware.BuildMiddlewareFunc("bellhop read-only body", func(
		ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler,
	) (middleware.BuildOutput, middleware.Metadata, error) {
		if request, ok := in.Request.(*smithyhttp.Request); ok {
			if body, ok := request.GetStream().(io.ReadSeeker); ok {
				plain, err := request.SetStream(struct{ io.ReadSeeker }{body})
				if err != nil {
					return middleware.BuildOutput{}, middleware.Metadata{}, fmt.Errorf("set the body of a request: %w", err)
				}
				in.Request = plain
			}
		}
		return next.HandleBuild(ctx, in)
	}), middleware.Before)
}
