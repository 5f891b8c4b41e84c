"""All mutations."""

from tests.mutations import allowances, gates, others, pages

MUTATIONS = (*others.MUTATIONS, *gates.MUTATIONS, *allowances.MUTATIONS, *pages.MUTATIONS)
