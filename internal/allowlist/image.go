package allowlist

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/distribution/reference"
)

// imageID is what engines take for the id of an image, or the beginning of one, before they take it for a name.
var imageID = regexp.MustCompile(`^(sha\d+(:.*)?|[0-9a-f]+)$`)

// CheckImage says what is wrong with the name of an image; nil when nothing is. An id is rejected: it names what is on a
// machine, whichever tenant had it pulled there, and no registry is asked for it.
func CheckImage(image string) error {
	if image == "" {
		return nil // reported already
	}
	if imageID.MatchString(image) {
		return errors.New("must be the name of an image and not its id; a name of digits and a to f alone needs a tag")
	}
	if _, err := reference.ParseNormalizedNamed(image); err != nil {
		return fmt.Errorf("is not the name of an image: %w", err)
	}
	return nil
}

// AllowsImage says whether one of the patterns allows an image to a tenant. The patterns are of repositories in full,
// without tags: "docker.io/library/nginx".
func AllowsImage(patterns []string, tenant, image string) bool {
	named, err := reference.ParseNormalizedNamed(image)
	return err == nil && Allows(patterns, tenant, named.Name())
}
