"""The routes below /key by which keys are made, shown, changed and deleted."""

import math

from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.key_answers import key_answer, key_row
from passthrough.admin.keys import Keys, Made, unknown_key
from passthrough.admin.schemas import keys as schemas
from passthrough.errors import Refusal, invalid
from passthrough.policy.keys import key_id_of
from passthrough.storage.key_pages import Filter, Page
from passthrough.storage.rows import Row

UNKNOWN = {404: "There is no such key."}


class KeyRoutes:
    """Requests about keys, handed to `Keys`, and its rows made into answers."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def endpoints(self) -> list[Endpoint]:
        return [*self._reading(), *self._writing()]

    def _reading(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="GET",
                path="/key/info",
                handle=self.info,
                query=schemas.KeyInfoQuery,
                answer=schemas.KeyInfo,
                access="own",
                refuses=UNKNOWN,
                summary="Show a key; without `key`, the caller's own.",
            ),
            Endpoint(
                method="POST",
                path="/v2/key/info",
                handle=self.infos,
                body=schemas.KeyReferences,
                answer=schemas.KeyInfos,
                summary="Show several keys; those that do not exist are left out.",
            ),
            Endpoint(
                method="GET",
                path="/key/list",
                handle=self.list,
                query=schemas.KeyListQuery,
                answer=schemas.KeyList,
                summary="List keys, a page at a time.",
            ),
            Endpoint(
                method="GET",
                path="/key/aliases",
                handle=self.aliases,
                query=schemas.AliasQuery,
                answer=schemas.AliasList,
                summary="List the aliases of keys in their order, a page at a time.",
            ),
        ]

    def _writing(self) -> list[Endpoint]:
        blocking = (("block", self.block), ("unblock", self.unblock))
        return [
            Endpoint(
                method="POST",
                path="/key/generate",
                handle=self.generate,
                body=schemas.GenerateKey,
                answer=schemas.GeneratedKey,
                summary="Make a key; the answer is the only place where its text ever is.",
            ),
            Endpoint(
                method="POST",
                path="/key/service-account/generate",
                handle=self.generate_for_team,
                body=schemas.ServiceAccountKey,
                answer=schemas.GeneratedKey,
                summary="Make a key of a team that is no user's.",
            ),
            Endpoint(
                method="POST",
                path="/key/update",
                handle=self.update,
                body=schemas.UpdateKey,
                answer=schemas.KeyAnswer,
                refuses=UNKNOWN,
                summary="Change what is given of a key; null takes away.",
            ),
            *(
                Endpoint(
                    method="POST",
                    path=f"/key/{verb}",
                    handle=handle,
                    body=schemas.KeyReference,
                    answer=schemas.KeyAnswer,
                    refuses=UNKNOWN,
                    summary=f"{verb.capitalize()} a key, at once on every worker.",
                )
                for verb, handle in blocking
            ),
            Endpoint(
                method="POST",
                path="/key/delete",
                handle=self.delete,
                body=schemas.DeleteKeys,
                answer=schemas.DeletedKeys,
                refuses=UNKNOWN,
                summary="Delete keys by themselves, their SHA-256 or their aliases: all of them, or none.",
            ),
        ]

    async def generate(self, asked: Asked) -> schemas.GeneratedKey:
        return self._made(await self._keys.generate(asked.body, asked.actor))

    async def generate_for_team(self, asked: Asked) -> schemas.GeneratedKey:
        return self._made(await self._keys.generate_for_team(asked.body, asked.actor))

    async def info(self, asked: Asked) -> schemas.KeyInfo:
        wanted = asked.query.key
        if wanted is None and asked.key.is_master:
            raise invalid("Name a key by 'key': the master key has no row of its own.", param="key")
        if not asked.key.is_master and wanted is not None and not await self._is_own(wanted, asked):
            raise Refusal(403, "", "A virtual key may only read its own info: leave 'key' out.", param="key")
        rows = await self._keys.info([asked.key.key_id if wanted is None or not asked.key.is_master else wanted])
        if not rows:
            raise unknown_key()
        allowances = [schemas.AllowanceInfo(**left) for left in await self._keys.left(rows[0]["key_id"])]
        return schemas.KeyInfo(key=rows[0]["key_id"], info=key_row(rows[0], self._keys.now()), allowances=allowances)

    async def infos(self, asked: Asked) -> schemas.KeyInfos:
        rows = await self._keys.info(asked.body.keys)
        now = self._keys.now()
        return schemas.KeyInfos(key=[row["key_id"] for row in rows], info=[key_row(row, now) for row in rows])

    async def list(self, asked: Asked) -> schemas.KeyList:
        query: schemas.KeyListQuery = asked.query
        if query.user_id and (query.include_team_keys or query.include_created_by_keys):
            raise invalid("A user's list holds the user's own keys only: ask for others by team_id.", param="user_id")
        whole = query.key_alias if not query.substring_matching else None
        which = Filter(
            user_id=query.user_id,
            team_id=query.team_id,
            key_id=key_id_of(query.key_hash) if query.key_hash else None,
            alias=whole or None,
            pieces=tuple(piece for piece in (query.search, None if whole else query.key_alias) if piece),
            status=query.status,
        )
        page = Page(number=query.page, size=query.size, order=query.sort_by, descending=query.sort_order == "desc")
        rows, total = await self._keys.page(which, page)
        now = self._keys.now()
        return schemas.KeyList(
            keys=[key_row(row, now) if query.return_full_object else row["key_id"] for row in rows],
            total_count=total,
            current_page=query.page,
            total_pages=math.ceil(total / query.size),
        )

    async def aliases(self, asked: Asked) -> schemas.AliasList:
        query: schemas.AliasQuery = asked.query
        which = Filter(has_alias=True, pieces=(query.search,) if query.search else ())
        page = Page(number=query.page, size=query.size, order="key_alias", descending=False)
        rows, total = await self._keys.page(which, page)
        return schemas.AliasList(
            aliases=[row["key_alias"] for row in rows],
            total_count=total,
            current_page=query.page,
            total_pages=math.ceil(total / query.size),
            size=query.size,
        )

    async def update(self, asked: Asked) -> schemas.KeyAnswer:
        return self._answer(await self._keys.update(asked.body, asked.actor))

    async def block(self, asked: Asked) -> schemas.KeyAnswer:
        return self._answer(await self._keys.block(asked.body.key, asked.actor, blocked=True))

    async def unblock(self, asked: Asked) -> schemas.KeyAnswer:
        return self._answer(await self._keys.block(asked.body.key, asked.actor, blocked=False))

    async def delete(self, asked: Asked) -> schemas.DeletedKeys:
        references, aliases = asked.body.keys or [], asked.body.key_aliases or []
        if not references and not aliases:
            raise invalid("Name keys by 'keys', or by 'key_aliases'.", param="keys")
        await self._keys.delete(references, aliases, asked.actor)
        # As they were named, which is LiteLLM's answer: what opened something no longer does.
        return schemas.DeletedKeys(deleted_keys=[*references, *aliases])

    def _made(self, made: Made) -> schemas.GeneratedKey:
        return key_answer(made.row, self._keys.now(), schemas.GeneratedKey, key=made.key, token_id=made.row["key_id"])

    def _answer(self, row: Row) -> schemas.KeyAnswer:
        return key_answer(row, self._keys.now(), schemas.KeyAnswer, key=row["key_id"])

    async def _is_own(self, reference: str, asked: Asked) -> bool:
        wanted = key_id_of(reference)
        if wanted == asked.key.key_id:
            return True
        rows = await self._keys.info([wanted])
        return bool(rows) and rows[0]["key_id"] == asked.key.key_id
