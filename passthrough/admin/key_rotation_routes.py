"""The routes below /key that rotate keys, reset counters, and say that a key works."""

from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.key_answers import key_answer
from passthrough.admin.key_rotation import Rotation
from passthrough.admin.key_routes import UNKNOWN
from passthrough.admin.keys import Keys, Made
from passthrough.admin.schemas import keys as schemas
from passthrough.errors import invalid


class KeyRotationRoutes:
    """Requests handed to `Rotation` and `Keys`."""

    def __init__(self, keys: Keys, rotation: Rotation) -> None:
        self._keys = keys
        self._rotation = rotation

    def endpoints(self) -> list[Endpoint]:
        rotating = (("/key/regenerate", self.regenerate), ("/key/{key}/regenerate", self.regenerate_named))
        return [
            *(
                Endpoint(
                    method="POST",
                    path=path,
                    handle=handle,
                    body=schemas.RegenerateKey,
                    answer=schemas.GeneratedKey,
                    refuses=UNKNOWN,
                    summary="Replace a key's text; the former one works on for `grace_period`.",
                )
                for path, handle in rotating
            ),
            Endpoint(
                method="POST",
                path="/key/{key}/reset_spend",
                handle=self.reset_spend,
                body=schemas.ResetSpend,
                answer=schemas.SpendWasReset,
                refuses=UNKNOWN,
                summary="Lower a key's spend counter; what it spent in its life stays.",
            ),
            Endpoint(
                method="POST",
                path="/key/health",
                handle=self.health,
                answer=schemas.KeyHealth,
                access="own",
                summary="Say that the key of this request works.",
            ),
        ]

    async def regenerate(self, asked: Asked) -> schemas.GeneratedKey:
        if asked.body.key is None:
            raise invalid("Name the key by 'key'.", param="key")
        return self._made(await self._rotation.rotate(asked.body.key, asked.body, asked.actor))

    async def regenerate_named(self, asked: Asked) -> schemas.GeneratedKey:
        return self._made(await self._rotation.rotate(asked.parts["key"], asked.body, asked.actor))

    async def reset_spend(self, asked: Asked) -> schemas.SpendWasReset:
        row, before = await self._keys.reset_spend(asked.parts["key"], asked.body.reset_to, asked.actor)
        key_id = row["key_id"]
        return key_answer(
            row, self._keys.now(), schemas.SpendWasReset, key=key_id, key_hash=key_id, previous_spend=before
        )

    async def health(self, asked: Asked) -> schemas.KeyHealth:  # noqa: ARG002  # that it was let in says it all
        return schemas.KeyHealth()

    def _made(self, made: Made) -> schemas.GeneratedKey:
        key_id = made.row["key_id"]
        return key_answer(made.row, self._keys.now(), schemas.GeneratedKey, key=made.key, token_id=key_id)
