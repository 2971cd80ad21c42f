"""The routes below /key."""

import math
from typing import Any

import msgspec

from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.keys import Keys, status_of, unknown_key
from passthrough.admin.schemas.keys import (
    DeletedKeys,
    DeleteKeys,
    GeneratedKey,
    GenerateKey,
    KeyAnswer,
    KeyInfo,
    KeyInfoQuery,
    KeyList,
    KeyListQuery,
    KeyReference,
    KeyRow,
    UpdateKey,
)
from passthrough.errors import Refusal, invalid
from passthrough.policy.keys import key_id_of
from passthrough.storage.key_pages import Filter, Page
from passthrough.storage.rows import Row

_UNKNOWN = {404: "there is no such key"}


class KeyRoutes:
    """Requests about keys, handed to `Keys` and its rows made into answers."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="POST",
                path="/key/generate",
                handle=self.generate,
                body=GenerateKey,
                answer=GeneratedKey,
                summary="Make a key; the answer is the only place where its text ever is.",
            ),
            Endpoint(
                method="GET",
                path="/key/info",
                handle=self.info,
                query=KeyInfoQuery,
                answer=KeyInfo,
                access="own",
                refuses=_UNKNOWN,
                summary="Show a key; without `key`, the caller's own.",
            ),
            Endpoint(
                method="GET",
                path="/key/list",
                handle=self.list,
                query=KeyListQuery,
                answer=KeyList,
                summary="List keys, a page at a time.",
            ),
            Endpoint(
                method="POST",
                path="/key/update",
                handle=self.update,
                body=UpdateKey,
                answer=KeyAnswer,
                refuses=_UNKNOWN,
                summary="Change what is given of a key; null takes away.",
            ),
            *(
                Endpoint(
                    method="POST",
                    path=f"/key/{verb}",
                    handle=handle,
                    body=KeyReference,
                    answer=KeyAnswer,
                    refuses=_UNKNOWN,
                    summary=f"{verb.capitalize()} a key, at once on every worker.",
                )
                for verb, handle in (("block", self.block), ("unblock", self.unblock))
            ),
            Endpoint(
                method="POST",
                path="/key/delete",
                handle=self.delete,
                body=DeleteKeys,
                answer=DeletedKeys,
                refuses=_UNKNOWN,
                summary="Delete keys by themselves, their SHA-256 or their aliases: all of them, or none.",
            ),
        ]

    async def generate(self, asked: Asked) -> GeneratedKey:
        made = await self._keys.generate(asked.body, asked.actor)
        shown = self.shown(made.row)
        return msgspec.convert({**shown, "key": made.key, "token_id": shown["token"]}, GeneratedKey)

    async def info(self, asked: Asked) -> KeyInfo:
        wanted = asked.query.key
        if wanted is None and asked.key.is_master:
            raise invalid("The parameter 'key' is missing: the master key has no row of its own.", param="key")
        if not asked.key.is_master and wanted is not None and not await self._is_own(wanted, asked):
            raise Refusal(403, "", "A virtual key may only read its own info: leave 'key' out.", param="key")
        rows = await self._keys.info([asked.key.key_id if wanted is None or not asked.key.is_master else wanted])
        if not rows:
            raise unknown_key()
        return KeyInfo(key=rows[0]["key_id"], info=msgspec.convert(self.shown(rows[0]), KeyRow))

    async def list(self, asked: Asked) -> KeyList:
        query: KeyListQuery = asked.query
        whole = query.key_alias if not query.substring_matching else None
        pieces = [piece for piece in (query.search, query.key_alias if not whole else None) if piece]
        which = Filter(
            user_id=query.user_id,
            team_id=query.team_id,
            key_id=key_id_of(query.key_hash) if query.key_hash else None,
            alias=whole,
            pieces=tuple(pieces),
            status=query.status,
        )
        page = Page(number=query.page, size=query.size, order=query.sort_by, descending=query.sort_order == "desc")
        rows, total = await self._keys.page(which, page)
        shown: list[str | KeyRow] = [
            msgspec.convert(self.shown(row), KeyRow) if query.return_full_object else row["key_id"] for row in rows
        ]
        return KeyList(
            keys=shown, total_count=total, current_page=query.page, total_pages=math.ceil(total / query.size)
        )

    async def update(self, asked: Asked) -> KeyAnswer:
        return self._answer(await self._keys.update(asked.body, asked.actor))

    async def block(self, asked: Asked) -> KeyAnswer:
        return self._answer(await self._keys.block(asked.body.key, asked.actor, blocked=True))

    async def unblock(self, asked: Asked) -> KeyAnswer:
        return self._answer(await self._keys.block(asked.body.key, asked.actor, blocked=False))

    async def delete(self, asked: Asked) -> DeletedKeys:
        references, aliases = asked.body.keys or [], asked.body.key_aliases or []
        if not references and not aliases:
            raise invalid("The field 'keys' is missing: name keys, or key_aliases.", param="keys")
        await self._keys.delete(references, aliases, asked.actor)
        # As they were named, which is LiteLLM's answer: what opened something no longer does.
        return DeletedKeys(deleted_keys=[*references, *aliases])

    def shown(self, row: Row) -> dict[str, Any]:
        """Give a row under the names of the API; what was never counted has spent nothing."""
        return {
            **row,
            "token": row["key_id"],
            "status": status_of(row, self._keys.now()),
            "spend": row["spend"] or 0,
            "total_spend": row["total_spend"] or 0,
        }

    def _answer(self, row: Row) -> KeyAnswer:
        shown = self.shown(row)
        return msgspec.convert({**shown, "key": shown["token"]}, KeyAnswer)

    async def _is_own(self, reference: str, asked: Asked) -> bool:
        wanted = key_id_of(reference)
        if wanted == asked.key.key_id:
            return True
        rows = await self._keys.info([wanted])
        return bool(rows) and rows[0]["key_id"] == asked.key.key_id
